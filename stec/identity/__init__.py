"""Identity models: one method, one file. They ask: is it still the same thing?"""
