"""The promises of Entrepot: ports that plugins implement, traits, errors, discovery."""
