"""The student network ResCBAM: modules, storage, pooling operations and similarity to the teacher."""
