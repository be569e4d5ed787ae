"""Protocols that measure a frozen encoder."""
