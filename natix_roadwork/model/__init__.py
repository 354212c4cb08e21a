"""What travels to the Hub: configuration, views, image processor, model. Flat, and importable without the rest."""
