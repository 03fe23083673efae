"""Lies of a border: it carries sealed runs to its nodes and could try anything with them on the way."""
