"""Images: read from files of every common format, arrays and tensors, and from the layouts of the field."""

from genad.data.image.augment import Augment
from genad.data.image.files import holds_images
from genad.data.image.folder import ImageFolder, read_image_folder
from genad.data.image.images import Images
from genad.data.image.reading import read_images

__all__ = ["Augment", "ImageFolder", "Images", "holds_images", "read_image_folder", "read_images"]
