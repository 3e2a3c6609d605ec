"""The application: flows over the five packages."""
