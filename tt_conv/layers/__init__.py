"""Recurrent layers: ConvLSTM, ConvTT-LSTM, and the stacked predictor of video frames."""

from tt_conv.layers.conv_lstm import ConvLSTM, ConvLSTMCell
from tt_conv.layers.conv_tt_lstm import ConvTTLSTM, ConvTTLSTMCell
from tt_conv.layers.frame_predictor import FramePredictor
from tt_conv.layers.published import load_published_state_dict

__all__ = [
    "ConvLSTM",
    "ConvLSTMCell",
    "ConvTTLSTM",
    "ConvTTLSTMCell",
    "FramePredictor",
    "load_published_state_dict",
]
