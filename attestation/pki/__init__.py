"""Certificates and signatures as all vendors use them: read once, strictly, in one spelling."""
