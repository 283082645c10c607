"""What two or more services use. A library never reads settings and never imports a service."""
