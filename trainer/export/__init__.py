"""MODEL for servers and phones: SavedModel and LiteRT."""
