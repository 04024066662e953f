// SPDX-License-Identifier: Apache-2.0
//
// A record as callers see it.

extension UnsafeMutablePointer where Pointee == VMARecord {
  /// The record as a value that needs no epoch.
  var info: MappingInfo {
    var file: UInt64?
    if let object = pointee.backing?.pointee.object, object.pointee.kind == .file {
      file = object.pointee.identity
    }
    return MappingInfo(
      range: pointee.range, protection: pointee.flags.protection,
      sharing: pointee.flags.contains(.shared) ? .shared : .private,
      pageOffset: pointee.pageOffset, file: file, name: special?.name)
  }
}
