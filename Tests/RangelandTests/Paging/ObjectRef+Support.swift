// SPDX-License-Identifier: Apache-2.0
//
// A page of an object that no special mapping fills.

@testable import Rangeland

extension UnsafeMutablePointer where Pointee == MemoryObject {
  func frameCreating(_ index: UInt64, _ context: Context) -> FrameNumber? {
    if case .frame(let frame) = pageCreating(index, context) { frame } else { nil }
  }
}
