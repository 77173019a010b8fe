"""Constrained decoding: schemas and tool calls as grammars, and the tokens they allow."""
