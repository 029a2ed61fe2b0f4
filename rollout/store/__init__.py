"""What the control plane keeps: one module a noun, on SQLite through SQLAlchemy. Every change is one transaction."""
