// SPDX-License-Identifier: Apache-2.0
//
// A page of an object that no special mapping fills.

@testable import Rangeland

extension UnsafeMutablePointer where Pointee == MemoryObject {
  func pageCreating(_ index: UInt64, _ context: Context) -> FrameNumber? {
    if case .frame(let frame) = pageCreating(index, filledBy: nil, context) { frame } else { nil }
  }
}
