"""What the user asked for: frozen data, validated. YAML and Python make the same objects. No I/O, no engines."""
