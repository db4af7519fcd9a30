"""All that knows SecretFlow: the driver, a party behind bytes, transports, TLS, private set intersection."""
