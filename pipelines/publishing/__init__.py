"""Publishing: a finished release is checked, goes to the Hugging Face Hub as one commit with a tag, and is read back from there."""
