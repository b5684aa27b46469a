"""Loading where people load models: a module for each library, which imports that library when it is used."""
