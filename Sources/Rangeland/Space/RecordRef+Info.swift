// SPDX-License-Identifier: Apache-2.0
//
// A record as callers see it.

extension UnsafeMutablePointer where Pointee == VMARecord {
  /// The record as a value that needs no epoch.
  var info: MappingInfo {
    var info = MappingInfo(
      range: pointee.range, protection: pointee.flags.protection,
      // A file that is mapped shared and may not be written is told as shared, though nothing of it ever is.
      sharing: pointee.flags.contains(.mayShare) ? .shared : .private,
      pageOffset: pointee.pageOffset)
    info.flags = pointee.flags
    guard let object = pointee.backing?.pointee.object else { return info }
    switch object.pointee.kind {
    case .file:
      info.file = object.pointee.identity
      info.source = object.pointee.file?.pointee.source.takeUnretainedValue()
    case .special: info.name = object.special?.name
    case .sharedAnonymous: info.sharedObject = UInt64(UInt(bitPattern: object)) >> 7
    case .anonymousIdentity: break
    }
    return info
  }
}
