"""A Django application with every usual kind of field, index and constraint."""
