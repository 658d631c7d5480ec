"""What this computer has and keeps, and how a process behaves on it: its memory and limits, the user's folders and
what is kept there, children, signals, standard streams."""
