"""Pipeline specifications: frozen, validated data. YAML and Python create equal objects. No I/O, no engines."""
