"""The networks. They know no mesh, no file and no ConfigDict."""
