"""Encoding on engines that teams have: each decides where and when, and the tokens are those of ``spintok encode``."""
