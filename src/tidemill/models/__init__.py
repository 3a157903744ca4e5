"""The pool of model families: one folder per modality, furnished alike."""
