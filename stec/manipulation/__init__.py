"""Manipulation models: one method, one file. They ask: what was done?"""
