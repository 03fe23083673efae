"""The program beside the engine: makes keys, proves itself, runs what is sealed to it.

`run` one execution, top to bottom · `order` what it must obey · `answer` what it seals · `statement`
what it signs · `keys` · `collect` and `quote` its proof · `engine/` the serving engine · `program` its life.
"""
