"""Code that runs in other processes than the supervisor, and never imports the supervisor's side."""
