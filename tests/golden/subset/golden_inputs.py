"""Pure-numpy reproduction of the weights, anchors, inputs and synthetic ground truth behind the golden arrays.

Contains no code of the original project. Every random number comes from
    numpy.random.default_rng(zlib.crc32(KEY.encode()))
with KEY as written below (PCG64; draws are made in exactly the order of the code)."""

import re
import zlib

import numpy as np


def rng(key):
    return np.random.default_rng(zlib.crc32(key.encode()))


# ------------------------------------------------------------------ weights
KEEP = re.compile(r"(instance_bank\.anchor|\.motion_anchor|\.plan_anchor|\.ego_anchor|\.fix_scale)$")
FINAL_CLS_BIAS = re.compile(r"\.cls_layers\.6\.bias$")


def weight_value(name, shape, is_float=True):
    """Value of one state_dict entry (None: leave as constructed)."""
    if not is_float or KEEP.search(name):
        return None
    r = rng(name)
    shape = tuple(shape)
    if name.endswith("instance_bank.instance_feature"):  # adjusted rule (see manifest)
        v = r.standard_normal(shape)
    elif len(shape) >= 2:
        v = r.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("running_var"):
        v = 1 + 0.1 * np.abs(r.standard_normal(shape))
    elif name.endswith("weight"):
        v = 1 + 0.1 * r.standard_normal(shape)
    elif name.endswith(".scale"):  # adjusted rule (see manifest)
        v = 0.1 * (1 + 0.1 * r.standard_normal(shape))
    elif FINAL_CLS_BIAS.search(name):  # adjusted rule (see manifest)
        v = -2.5 + 0.02 * r.standard_normal(shape)
    else:
        v = 0.02 * r.standard_normal(shape)
    return np.asarray(v, dtype=np.float32)


# ------------------------------------------------------------------ anchors
CLASS_DIMS = np.array(
    [  # length(W slot), width(L slot), height
        [4.6, 1.95, 1.73],
        [6.9, 2.5, 2.8],
        [6.5, 2.8, 3.2],
        [11.0, 2.95, 3.45],
        [12.2, 2.9, 3.9],
        [0.5, 2.5, 1.0],
        [2.1, 0.77, 1.46],
        [1.7, 0.6, 1.3],
        [0.73, 0.67, 1.77],
        [0.41, 0.41, 1.07],
    ]
)


def make_anchors():
    r = rng("anchor/det")
    n = 900
    a = np.zeros((n, 11))
    gx, gy = np.meshgrid(np.linspace(-53, 53, 30), np.linspace(-53, 53, 30), indexing="ij")
    a[:, 0] = np.clip(gx.ravel() + r.uniform(-1.8, 1.8, n), -55, 55)
    a[:, 1] = np.clip(gy.ravel() + r.uniform(-1.8, 1.8, n), -55, 55)
    a[:, 2] = -1.0 + 0.3 * r.standard_normal(n)
    a[:, 3:6] = np.log([4.5, 1.9, 1.7]) + 0.15 * r.standard_normal((n, 3))
    yaw = r.uniform(-np.pi, np.pi, n)
    a[:, 6], a[:, 7] = np.sin(yaw), np.cos(yaw)
    sp = np.abs(1.5 * r.standard_normal(n))
    a[:, 8], a[:, 9] = sp * np.cos(yaw), sp * np.sin(yaw)
    det = a.astype(np.float32)

    r = rng("anchor/map")
    m = np.zeros((100, 20, 2))
    for i in range(100):
        c = np.array([r.uniform(-12, 12), r.uniform(-26, 26)])
        ang = r.uniform(-np.pi, np.pi)
        ln = r.uniform(4, 30)
        curv = r.uniform(-0.04, 0.04)
        s = np.linspace(-0.5, 0.5, 20) * ln
        p = np.stack([s * np.cos(ang) - curv * s * s * np.sin(ang), s * np.sin(ang) + curv * s * s * np.cos(ang)], -1) + c
        p[:, 0] = np.clip(p[:, 0], -15, 15)
        p[:, 1] = np.clip(p[:, 1], -30, 30)
        m[i] = p
    map_ = m.astype(np.float32)

    r = rng("anchor/motion")
    mo = np.zeros((10, 6, 12, 2))
    vmax = [8, 7, 1, 6, 4, 0.2, 7, 4, 1.3, 0.2]
    for c in range(10):
        for k in range(6):
            v = vmax[c] * (k + 0.5) / 6 * (1 + 0.1 * r.standard_normal())
            w = (k % 3 - 1) * 0.15 * (1 + 0.2 * r.standard_normal())
            t = 0.5 * np.arange(1, 13)
            th = w * t
            step = 0.5 * v * np.stack([np.cos(th), np.sin(th)], -1)
            mo[c, k] = np.cumsum(step, 0)  # agent frame: x = heading
    motion = mo.astype(np.float32)

    r = rng("anchor/plan")
    pl = np.zeros((3, 6, 6, 2))
    for c, wc in enumerate([-0.25, 0.25, 0.0]):  # right, left, straight (lidar frame: y forward, x right)
        for k in range(6):
            v = 9.0 * (k + 0.5) / 6 * (1 + 0.05 * r.standard_normal())
            w = wc * (1 + 0.2 * r.standard_normal())
            th = np.pi / 2 + w * 0.5 * np.arange(1, 7)
            pl[c, k] = np.cumsum(0.5 * v * np.stack([np.cos(th), np.sin(th)], -1), 0)
    plan = pl.astype(np.float32)
    return dict(det=det, map=map_, motion=motion, plan=plan)


# ------------------------------------------------------------------ inputs
CAMS = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"]
IMG_H, IMG_W = 256, 704
T0 = 1532402927.647951


def aug_matrix(resize, crop_x, crop_y, flip):
    m = np.eye(3)
    m[:2, :2] *= resize
    m[:2, 2] -= [crop_x, crop_y]
    if flip:
        m = np.array([[-1, 0, IMG_W], [0, 1, 0], [0, 0, 1.0]]) @ m
    o = np.eye(4)
    o[:3, :3] = m
    return o


# sample 0: the test-time transform (resize 0.44, crop x 0 y 140); sample 1: a train-like one (0.45, crop 8/149, flip)
AUG = [dict(resize=0.44, crop_x=0, crop_y=140, flip=False), dict(resize=0.45, crop_x=8, crop_y=149, flip=True)]
SPEED = [5.0, 8.0]  # m/s along ego x
YAW_RATE = [0.05, -0.1]  # rad/s


def pose(xyyaw):
    x, y, th = xyyaw
    m = np.eye(4)
    m[:2, :2] = [[np.cos(th), -np.sin(th)], [np.sin(th), np.cos(th)]]
    m[:2, 3] = [x, y]
    return m


def frame_inputs(calib, case, frame, batch, jump=()):
    """calib: calib.npz; jump: per-sample number of scene changes that happened up to this frame."""
    img = rng(f"img/{case}/{frame}").standard_normal((batch, 6, 3, IMG_H, IMG_W), dtype=np.float32)
    r = rng(f"meta/{case}/{frame}")
    proj, focal, tg, ts, status, cmd = [], [], [], [], [], []
    for b in range(batch):
        j = jump[b] if jump else 0
        A = aug_matrix(**AUG[b])
        K = np.tile(np.eye(4), (6, 1, 1))
        K[:, :3, :3] = calib["cam2img"]
        proj.append(A @ K @ calib["lidar2cam"])
        focal.append(calib["cam2img"][:, 0, 0] * AUG[b]["resize"])
        t = 0.5 * frame
        v, w = SPEED[b], YAW_RATE[b]
        th = w * t
        d = pose((v / w * np.sin(th), v / w * (1 - np.cos(th)), th))  # constant-turn-rate arc in the ego frame
        e2g = calib["ego2global"] @ d
        if j:
            e2g = pose((300.0 * j, -120.0 * j, 1.0 * j)) @ e2g
        tg.append(e2g @ calib["lidar2ego"])
        ts.append(T0 + 100.0 * b + t + 10.0 * j)
        s = 0.1 * r.standard_normal(10)
        s[6] += v
        status.append(s)
        c = np.zeros(3)
        c[int(r.integers(0, 3))] = 1
        cmd.append(c)
    tg = np.stack(tg)
    return dict(
        img=img,
        projection_mat=np.stack(proj).astype(np.float32),
        image_wh=np.tile(np.array([IMG_W, IMG_H], np.float32), (batch, 6, 1)),
        focal=np.stack(focal).astype(np.float32),
        timestamp=np.array(ts, np.float64),
        T_global=tg,  # lidar -> global, float64
        T_global_inv=np.linalg.inv(tg),
        ego_status=np.stack(status).astype(np.float32),
        gt_ego_fut_cmd=np.stack(cmd).astype(np.float32),
    )
