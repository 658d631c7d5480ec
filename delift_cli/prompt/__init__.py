"""Records and a vocabulary in, token ids out: the chat template, prefixes and targets, tries of what targets share."""
