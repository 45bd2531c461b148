"""An evaluation as one HTML page, and what every report of this kind is made from."""
