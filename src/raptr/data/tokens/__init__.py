"""Documents -> tokens on disk: tokenizers, parallel encoding, the token store."""
