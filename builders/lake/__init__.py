"""Storage: typed tables, atomic shards with a manifest, failures as rows, hashes of files.

It imports no other room.
"""
