"""How to learn: models and tasks come as arguments."""
