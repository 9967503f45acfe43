"""What a kill costs: runs that are killed and go on, beside ones that are not."""
