"""Language models that answer: over HTTP, in this process, from a script; a cache of what they said; what it cost."""
