"""A look at somebody's own data, before settings for it are proposed."""
