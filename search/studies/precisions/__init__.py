"""Networks in int8 compared with the same in float."""
