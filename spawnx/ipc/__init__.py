"""Media that several processes share: one module each, with its format. The `*_reader` modules are the supervisor's."""
