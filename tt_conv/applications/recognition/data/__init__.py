"""Labelled clips: Something-Something V2, folders of videos by class, and an embedded set in the same form."""

from typing import TYPE_CHECKING

from tt_conv.applications.extras import naming_the_extra
from tt_conv.lazy import exports

if TYPE_CHECKING:
    from tt_conv.applications.recognition.data.class_folders import ClassFolders
    from tt_conv.applications.recognition.data.class_list import read_class_list
    from tt_conv.applications.recognition.data.digit_action_files import digit_actions_folder, write_digit_actions
    from tt_conv.applications.recognition.data.digit_actions import ACTIONS, Action, best_accuracy
    from tt_conv.applications.recognition.data.labelled import LabelledClips
    from tt_conv.applications.recognition.data.sampling import observed_frames, sampled_frames
    from tt_conv.applications.recognition.data.something_something import SomethingSomething
    from tt_conv.applications.recognition.data.video_clips import VideoClips, read_clip

__all__ = [
    "LabelledClips",
    "SomethingSomething",
    "ClassFolders",
    "VideoClips",
    "read_clip",
    "read_class_list",
    "sampled_frames",
    "observed_frames",
    "digit_actions_folder",
    "write_digit_actions",
    "Action",
    "ACTIONS",
    "best_accuracy",
]

# Public name -> the module that defines it, imported at first use.
_DEFINED_IN = {
    "LabelledClips": ".labelled",
    "SomethingSomething": ".something_something",
    "ClassFolders": ".class_folders",
    "VideoClips": ".video_clips",
    "read_clip": ".video_clips",
    "read_class_list": ".class_list",
    "sampled_frames": ".sampling",
    "observed_frames": ".sampling",
    "digit_actions_folder": ".digit_action_files",
    "write_digit_actions": ".digit_action_files",
    "Action": ".digit_actions",
    "ACTIONS": ".digit_actions",
    "best_accuracy": ".digit_actions",
}

__getattr__ = exports(__name__, _DEFINED_IN, naming_the_extra)
