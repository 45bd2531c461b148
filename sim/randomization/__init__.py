"""What may differ from the nominal model: schema, parameter vectors, model fields, sensors."""
