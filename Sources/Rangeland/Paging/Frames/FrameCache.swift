// SPDX-License-Identifier: Apache-2.0
//
// A thread's free frames.

struct FrameCache {
}
