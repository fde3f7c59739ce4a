"""Names of methods as papers and people write them, for pictures, tables and reports. Stored names stay as they are."""

TITLES = {
    "mal_grad_cam": "MAL-Grad-CAM",
    "ml_grad_cam": "ML-Grad-CAM",
    "matt": "MATT",
    "readout": "Read-out",
    "grad_cam": "Grad-CAM",
    "cam": "CAM",
    "grad_cam_pp": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "hires_cam": "HiResCAM",
    "score_cam": "Score-CAM",
    "integrated_gradients": "Integrated gradients",
    "mask": "MASK",
    "rise": "RISE",
    "lime": "LIME",
    "kernel_shap": "KernelSHAP",
    "gp_regression": "GP regression",
    "sobol": "Sobol",
    "hsic": "HSIC",
    "oracle": "Greedy oracle",
    "random": "Random",
    "centre_gaussian": "Center Gaussian",
    "edges": "Edges",
}


def title_of(name: str) -> str:
    """Return a method's name as people write it; an unknown one stays as it is."""
    return TITLES.get(name, name)
