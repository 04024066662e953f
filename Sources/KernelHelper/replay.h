// SPDX-License-Identifier: Apache-2.0

#ifndef REPLAY_H
#define REPLAY_H

/// Makes the calls of the plan that lies in shared memory behind `descriptor` (KernelReplay.h); the exit status. Ends with
/// the process `parent`.
int replay(int descriptor, int parent);

#endif
