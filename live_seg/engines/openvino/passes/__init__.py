"""Passes that rewrite OpenVINO models to compute the same in less time.

Each module has the cost rule `applies` and the rewriting `apply` of one operation. Costs were measured on an
x86 CPU with AVX-512.
"""
