"""Who may have signed a model (OpenSSF model-signing): a key, certificates under a root, or an identity.

`choice` what a configuration says · `certificate` a chain to a pinned root · `keyless` an identity under a
pinned Sigstore root. A key that is pinned, and what a signature says of a model, is `model_signature`.
"""
