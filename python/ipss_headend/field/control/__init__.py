"""Critical commands: asked for by one person, approved by others, sent once, read back. See README.md."""
