"""The rules of tus as plain functions over plain values: nothing here awaits, looks at the clock or logs."""
