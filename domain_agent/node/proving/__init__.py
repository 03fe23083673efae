"""What a node proves itself with: quotes, devices, event logs, and the collateral it is handed."""
