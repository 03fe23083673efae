"""Mangled evidence thrown at each attestation room: `python -m bench.fuzzing.snp`, `.tdx`, `.gpu`."""
